/* What a convolution multiplies with weights: an input and a number that is added to it, which the bias takes back.
 * Unsigned with signed bytes is what x86 multiplies fastest, 16-bit numbers without the zero point most others. */
#if KERNEL_DSP
typedef int8_t KernelNumber;
#define KERNEL_ADDED(zero) 0
#elif defined(__AVX512VNNI__) || defined(__AVXVNNI__)
typedef uint8_t KernelNumber;
#define KERNEL_ADDED(zero) 128
#else
typedef int16_t KernelNumber;
#define KERNEL_ADDED(zero) (-(zero))
#endif

/* Output pixels that are computed together, for four of which processors with vectors have registers; and numbers under
 * a window that are computed together, after which zeros are left out. */
#if defined(__AVX2__)
#define KERNEL_PIXELS 4
#define KERNEL_VECTOR 32
#elif !KERNEL_DSP && (defined(__SSE2__) || defined(__ARM_NEON) || defined(__riscv_vector))
#define KERNEL_PIXELS 4
#define KERNEL_VECTOR 16
#else
#define KERNEL_PIXELS 2
#define KERNEL_VECTOR 1
#endif

/* A convolution, grouped or not, or a fully connected layer. weight: output, row, column, input channel of the group,
 * then zeros up to `length` for each output. `direct`: one window over the whole image, which is read in place; the bias
 * then holds what the zero point adds. */
typedef struct {
    const int8_t *weight;
    const int32_t *bias;
    const float *multiplier;
    int32_t length;
    int16_t in_rows, in_columns, in_channels, out_rows, out_columns, out_channels;
    int16_t kernel_rows, kernel_columns, top, left, groups;
    int8_t row_stride, column_stride, row_dilation, column_dilation, direct, in_zero;
    KernelOutput to;
} KernelConv;
void kernel_conv(const KernelConv *p, const int8_t *in, int8_t *out);

/* powers: e to minus each difference of two inputs, 0..255 steps. */
typedef struct {
    const float *powers;
    int32_t channels, pixels;
    float scale;
    KernelOutput to;
} KernelSoftmax;
void kernel_softmax(const KernelSoftmax *p, const int8_t *in, int8_t *out);

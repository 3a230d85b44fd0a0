/* The mean of a function over a window that lies inside the image: of a table of 256 numbers, or of straight lines for
 * each channel (see KernelLines), limited to two numbers. */
typedef struct {
    KernelWindow window;
    const float *numbers, *up, *down, *shift;
    float lowest, highest, scale, most;
    int8_t in_zero;
    KernelOutput to;
} KernelMeanOf;
void kernel_mean_of(const KernelMeanOf *p, const int8_t *in, int8_t *out);

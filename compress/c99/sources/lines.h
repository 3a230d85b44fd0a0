/* For each channel a straight line, or two that meet at the zero point: up where the number is positive. Channels begin
 * again after the last one. `most` is larger than any product, see kernel_add. */
typedef struct {
    const float *up, *down, *shift;
    int32_t channels, pixels;
    float most;
    int8_t zero;
    KernelOutput to;
} KernelLines;
void kernel_lines(const KernelLines *p, const int8_t *in, int8_t *out);

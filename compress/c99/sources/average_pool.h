/* `pixels` to divide by, or 0: those inside the image. */
typedef struct {
    KernelWindow window;
    int32_t pixels;
    float in_scale, out_scale;
    int8_t in_zero;
    KernelOutput to;
} KernelAveragePool;
void kernel_average_pool(const KernelAveragePool *p, const int8_t *in, int8_t *out, int8_t *ring);

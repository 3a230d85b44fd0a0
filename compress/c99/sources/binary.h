/* Two images; a step from pixel to pixel is 0 where one pixel stands for all. */
typedef struct {
    int32_t pixels, channels, a_step, b_step, a_zero, b_zero;
    float a_scale, b_scale, scale, most;
    KernelOutput to;
} KernelBinary;

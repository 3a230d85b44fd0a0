/* Two images; `a_moves` and `b_moves` are 0 where one pixel stands for all. */
typedef struct {
    int32_t pixels, channels;
    float a_scale, b_scale, scale, most;
    int8_t a_moves, b_moves, a_zero, b_zero;
    KernelOutput to;
} KernelBinary;

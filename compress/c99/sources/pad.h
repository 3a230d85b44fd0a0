typedef struct {
    int16_t rows, columns, channels, top, left, bottom, right, zero;
} KernelPad;
void kernel_pad(const KernelPad *p, const int8_t *in, int8_t *out);

void kernel_conv(const KernelConv *p, const int8_t *in, int8_t *out) {
    const int32_t pixels = p->out_rows * p->out_columns;
    int32_t row = 0, column = 0;
    if (p->direct) {
        kernel_conv_direct(p, in, out);
        return;
    }
    for (int32_t done = 0; done < pixels; done += KERNEL_PIXELS) {
        const int32_t last = kernel_smaller(KERNEL_PIXELS, pixels - done) - 1;
        KernelPlace at[KERNEL_PIXELS];
        for (int32_t i = 0; i < KERNEL_PIXELS; i++) {
            at[i].row = row * p->row_stride - p->top;
            at[i].column = column * p->column_stride - p->left;
            if (done + i + 1 < pixels && ++column == p->out_columns) {
                column = 0;
                row++;
            }
        }
        kernel_conv_pixels(p, in, at, last, out);
        out += KERNEL_PIXELS * p->out_channels;
    }
}

static void kernel_largest(const KernelRows *rows, int32_t row, int32_t column, int8_t *largest) {
    const KernelWindow *w = rows->w;
    memset(largest, -128, KERNEL_BLOCK);
    for (int32_t i = 0; i < w->kernel_rows; i++) {
        const int32_t y = row + i * w->row_dilation;
        for (int32_t j = 0; j < w->kernel_columns; j++) {
            const int32_t x = column + j * w->column_dilation;
            if (y < 0 || y >= w->in_rows || x < 0 || x >= w->in_columns) {
                continue;
            }
            const int8_t *pixel = kernel_pixel(rows, y, x);
            for (int32_t c = 0; c < rows->channels; c++) {
                largest[c] = pixel[c] > largest[c] ? pixel[c] : largest[c];
            }
        }
    }
}

void kernel_max_pool(const KernelWindow *w, const int8_t *in, int8_t *out, int8_t *ring) {
    int8_t largest[KERNEL_BLOCK];
    for (int32_t c = 0; c < w->channels; c += KERNEL_BLOCK) {
        KernelRows rows = {w, in + c, ring, kernel_smaller(KERNEL_BLOCK, w->channels - c), 0};
        for (int32_t r = 0; r < w->out_rows; r++) {
            kernel_keep(&rows, r);
            for (int32_t q = 0; q < w->out_columns; q++) {
                kernel_largest(&rows, r * w->row_stride - w->top, q * w->column_stride - w->left, largest);
                memcpy(out + (r * w->out_columns + q) * w->channels + c, largest, (size_t)rows.channels);
            }
        }
    }
}

/* Sums over the pixels of a window that lie inside; returns how many. */
static int32_t kernel_average_sums(const KernelRows *rows, int32_t row, int32_t column, int32_t zero, int32_t *sums) {
    const KernelWindow *w = rows->w;
    int32_t pixels = 0;
    memset(sums, 0, KERNEL_BLOCK * sizeof *sums);
    for (int32_t i = 0; i < w->kernel_rows; i++) {
        const int32_t y = row + i * w->row_dilation;
        for (int32_t j = 0; j < w->kernel_columns; j++) {
            const int32_t x = column + j * w->column_dilation;
            if (y < 0 || y >= w->in_rows || x < 0 || x >= w->in_columns) {
                continue;
            }
            const int8_t *pixel = kernel_pixel(rows, y, x);
            for (int32_t c = 0; c < rows->channels; c++) {
                sums[c] += pixel[c] - zero;
            }
            pixels++;
        }
    }
    return pixels;
}

void kernel_average_pool(const KernelAveragePool *p, const int8_t *in, int8_t *out, int8_t *ring) {
    const KernelWindow *w = &p->window;
    const float low = kernel_lowest(&p->to), high = kernel_highest(&p->to);
    int32_t sums[KERNEL_BLOCK];
    for (int32_t c = 0; c < w->channels; c += KERNEL_BLOCK) {
        KernelRows rows = {w, in + c, ring, kernel_smaller(KERNEL_BLOCK, w->channels - c), 0};
        for (int32_t r = 0; r < w->out_rows; r++) {
            kernel_keep(&rows, r);
            for (int32_t q = 0; q < w->out_columns; q++) {
                int32_t pixels = kernel_average_sums(&rows, r * w->row_stride - w->top, q * w->column_stride - w->left,
                                                     p->in_zero, sums);
                pixels = p->pixels > 0 ? p->pixels : pixels;
                const float multiplier = p->in_scale / (p->out_scale * (float)pixels);
                int8_t *to = out + (r * w->out_columns + q) * w->channels + c;
                for (int32_t i = 0; i < rows.channels; i++) {
                    to[i] = kernel_rounded((float)sums[i] * multiplier, low, high, p->to.zero);
                }
            }
        }
    }
}

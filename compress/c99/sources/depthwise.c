#if !KERNEL_DSP
/* The pixel at a row and a column, or the zero point outside the image. */
static const int8_t *kernel_tap(const KernelRows *rows, int32_t y, int32_t x, const int8_t *outside) {
    const KernelWindow *w = rows->w;
    return y >= 0 && y < w->in_rows && x >= 0 && x < w->in_columns ? kernel_pixel(rows, y, x) : outside;
}

/* One row of a window over a whole block of channels, three columns at a time. */
KERNEL_APART static void kernel_depthwise_row(const KernelRows *rows, int32_t y, int32_t x, const int8_t *outside,
                                              const int8_t *w, int32_t *restrict sums) {
    const int32_t columns = rows->w->kernel_columns, step = rows->w->column_dilation;
    int32_t j = 0;
    for (; j + 3 <= columns; j += 3) {
        const int8_t *p = kernel_tap(rows, y, x, outside), *q = kernel_tap(rows, y, x + step, outside);
        const int8_t *r = kernel_tap(rows, y, x + 2 * step, outside);
        for (int32_t c = 0; c < KERNEL_BLOCK; c++) {
            sums[c] += p[c] * w[c] + q[c] * w[c + KERNEL_BLOCK] + r[c] * w[c + 2 * KERNEL_BLOCK];
        }
        x += 3 * step;
        w += 3 * KERNEL_BLOCK;
    }
    for (; j < columns; j++) {
        const int8_t *p = kernel_tap(rows, y, x, outside);
        for (int32_t c = 0; c < KERNEL_BLOCK; c++) {
            sums[c] += p[c] * w[c];
        }
        x += step;
        w += KERNEL_BLOCK;
    }
}

/* One output pixel of a block of channels. */
static void kernel_depthwise_sums(const KernelRows *rows, int32_t row, int32_t column, const int8_t *outside,
                                  const int8_t *weight, int32_t *sums) {
    const KernelWindow *w = rows->w;
    for (int32_t i = 0; i < w->kernel_rows; i++) {
        const int32_t y = row + i * w->row_dilation;
        if (rows->channels == KERNEL_BLOCK) {
            kernel_depthwise_row(rows, y, column, outside, weight, sums);
            weight += w->kernel_columns * KERNEL_BLOCK;
            continue;
        }
        for (int32_t j = 0; j < w->kernel_columns; j++) {
            const int8_t *pixel = kernel_tap(rows, y, column + j * w->column_dilation, outside);
            for (int32_t c = 0; c < rows->channels; c++) {
                sums[c] += pixel[c] * weight[c];
            }
            weight += rows->channels;
        }
    }
}

void kernel_depthwise(const KernelDepthwise *p, const int8_t *in, int8_t *out, int8_t *ring) {
    const KernelWindow *w = &p->window;
    const int8_t *weight = p->weight;
    int8_t outside[KERNEL_BLOCK];
    int32_t sums[KERNEL_BLOCK];
    memset(outside, p->in_zero, sizeof outside);
    for (int32_t c = 0; c < w->channels; c += KERNEL_BLOCK) {
        KernelRows rows = {w, in + c, ring, kernel_smaller(KERNEL_BLOCK, w->channels - c), 0};
        for (int32_t r = 0; r < w->out_rows; r++) {
            kernel_keep(&rows, r);
            for (int32_t q = 0; q < w->out_columns; q++) {
                memcpy(sums, p->bias + c, (size_t)rows.channels * sizeof *sums);
                kernel_depthwise_sums(&rows, r * w->row_stride - w->top, q * w->column_stride - w->left, outside, weight,
                                      sums);
                kernel_requantize(sums, p->multiplier + c, rows.channels, &p->to,
                                  out + (r * w->out_columns + q) * w->channels + c);
            }
        }
        weight += w->kernel_rows * w->kernel_columns * rows.channels;
    }
}
#endif

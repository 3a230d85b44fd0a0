static float kernel_number(const KernelMeanOf *p, int8_t value, int32_t c) {
    float number;
    if (p->numbers) {
        number = p->numbers[value + 128];
    } else {
        const float x = (float)(value - p->in_zero), product = x * (x < 0.0f ? p->down[c] : p->up[c]);
        number = (product > p->most ? p->most : product) + p->shift[c];
    }
    number = number < p->lowest ? p->lowest : number;
    return number > p->highest ? p->highest : number;
}

/* One channel of the pixels under a window whose first number is `in`. */
static float kernel_sum_of(const KernelMeanOf *p, const int8_t *in, int32_t c) {
    const KernelWindow *w = &p->window;
    float sum = 0.0f;
    for (int32_t i = 0; i < w->kernel_rows; i++) {
        const int8_t *row = in + i * w->row_dilation * w->in_columns * w->channels + c;
        for (int32_t j = 0; j < w->kernel_columns; j++) {
            sum += kernel_number(p, *row, c);
            row += w->column_dilation * w->channels;
        }
    }
    return sum;
}

void kernel_mean_of(const KernelMeanOf *p, const int8_t *in, int8_t *out) {
    const KernelWindow *w = &p->window;
    const float pixels = (float)(w->kernel_rows * w->kernel_columns);
    const float low = kernel_lowest(&p->to), high = kernel_highest(&p->to);
    for (int32_t r = 0; r < w->out_rows; r++) {
        for (int32_t q = 0; q < w->out_columns; q++) {
            const int8_t *from = in + (r * w->row_stride * w->in_columns + q * w->column_stride) * w->channels;
            for (int32_t c = 0; c < w->channels; c++) {
                *out++ = kernel_rounded(kernel_sum_of(p, from, c) / pixels / p->scale, low, high, p->to.zero);
            }
        }
    }
}

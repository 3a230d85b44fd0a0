/* Sums of products of an image with rows of weights. */
static void kernel_dots(const int8_t *x, const int8_t *w, int32_t length, int32_t n, const int32_t *bias,
                        int32_t *sums) {
    for (int32_t row = 0; row < n; row++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < length; i++) {
            sum += x[i] * w[i];
        }
        sums[row] = bias[row] + sum;
        w += length;
    }
}

/* The same of two patches, four rows at a time. */
KERNEL_APART static void kernel_dots_of_two(const KernelNumber *x, const int8_t *w, int32_t length, int32_t n,
                               const int32_t *bias, int32_t *sums) {
    const KernelNumber *y = x + length;
    int32_t *more = sums + KERNEL_BLOCK;
    int32_t row = 0;
    for (; row + 4 <= n; row += 4) {
        const int8_t *w0 = w, *w1 = w + length, *w2 = w1 + length, *w3 = w2 + length;
        int32_t x0 = 0, x1 = 0, x2 = 0, x3 = 0, y0 = 0, y1 = 0, y2 = 0, y3 = 0;
        for (int32_t i = 0; i < length; i++) {
            x0 += x[i] * w0[i];
            x1 += x[i] * w1[i];
            x2 += x[i] * w2[i];
            x3 += x[i] * w3[i];
            y0 += y[i] * w0[i];
            y1 += y[i] * w1[i];
            y2 += y[i] * w2[i];
            y3 += y[i] * w3[i];
        }
        sums[row] = bias[row] + x0;
        sums[row + 1] = bias[row + 1] + x1;
        sums[row + 2] = bias[row + 2] + x2;
        sums[row + 3] = bias[row + 3] + x3;
        more[row] = bias[row] + y0;
        more[row + 1] = bias[row + 1] + y1;
        more[row + 2] = bias[row + 2] + y2;
        more[row + 3] = bias[row + 3] + y3;
        w = w3 + length;
    }
    for (; row < n; row++) {
        int32_t x0 = 0, y0 = 0;
        for (int32_t i = 0; i < length; i++) {
            x0 += x[i] * w[i];
            y0 += y[i] * w[i];
        }
        sums[row] = bias[row] + x0;
        more[row] = bias[row] + y0;
        w += length;
    }
}

KERNEL_APART static KernelNumber *kernel_widen(const int8_t *in, int32_t n, int32_t added, KernelNumber *restrict to) {
    for (int32_t i = 0; i < n; i++) {
        to[i] = (KernelNumber)(in[i] + added);
    }
    return to + n;
}

/* The numbers under a window, `channels` of each pixel from `in` on; outside the image lies the zero point. */
KERNEL_APART static void kernel_patch(const KernelConv *p, const int8_t *in, int32_t row, int32_t column, KernelNumber *patch) {
    const KernelNumber *end = patch + p->length;
    const int32_t channels = p->in_channels / p->groups, added = KERNEL_ADDED(p->in_zero);
    const int together = p->groups == 1 && p->column_dilation == 1 && column >= 0 &&
                         column + p->kernel_columns <= p->in_columns;
    for (int32_t i = 0; i < p->kernel_rows; i++) {
        const int32_t y = row + i * p->row_dilation;
        const int8_t *line = in + y * p->in_columns * p->in_channels;
        const int inside = y >= 0 && y < p->in_rows;
        if (together && inside) {
            patch = kernel_widen(line + column * channels, p->kernel_columns * channels, added, patch);
            continue;
        }
        for (int32_t j = 0; j < p->kernel_columns; j++) {
            const int32_t x = column + j * p->column_dilation;
            if (inside && x >= 0 && x < p->in_columns) {
                patch = kernel_widen(line + x * p->in_channels, channels, added, patch);
                continue;
            }
            for (int32_t c = 0; c < channels; c++) {
                *patch++ = (KernelNumber)(p->in_zero + added);
            }
        }
    }
    while (patch < end) {
        *patch++ = 0;
    }
}

/* Two neighbouring output pixels, or one where `pixels` is 1. */
static void kernel_conv_pixels(const KernelConv *p, const int8_t *in, int32_t row, int32_t column, int32_t pixels,
                               int8_t *out) {
    const int32_t channels = p->in_channels / p->groups, outputs = p->out_channels / p->groups;
    const int32_t length = p->length;
    KernelNumber patch[2 * KERNEL_PATCH];
    int32_t sums[2 * KERNEL_BLOCK];
    for (int32_t g = 0; g < p->groups; g++) {
        for (int32_t i = 0; i < 2 && !p->direct; i++) {
            kernel_patch(p, in + g * channels, row, column + (pixels - 1) * i * p->column_stride, patch + i * length);
        }
        for (int32_t o = g * outputs; o < (g + 1) * outputs; o += KERNEL_BLOCK) {
            const int32_t n = kernel_smaller(KERNEL_BLOCK, (g + 1) * outputs - o);
            if (p->direct) {
                kernel_dots(in, p->weight + o * length, length, n, p->bias + o, sums);
            } else {
                kernel_dots_of_two(patch, p->weight + o * length, length, n, p->bias + o, sums);
            }
            for (int32_t i = 0; i < pixels; i++) {
                kernel_requantize(sums + i * KERNEL_BLOCK, p->multiplier + o, n, &p->to,
                                  out + i * p->out_channels + o);
            }
        }
    }
}

void kernel_conv(const KernelConv *p, const int8_t *in, int8_t *out) {
    for (int32_t row = 0; row < p->out_rows; row++) {
        for (int32_t column = 0; column < p->out_columns; column += 2) {
            const int32_t pixels = kernel_smaller(2, p->out_columns - column);
            kernel_conv_pixels(p, in, row * p->row_stride - p->top, column * p->column_stride - p->left, pixels, out);
            out += pixels * p->out_channels;
        }
    }
}

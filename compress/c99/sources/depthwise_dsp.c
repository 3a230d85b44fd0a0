#if KERNEL_DSP
/* Sums that are made at a time. */
#define KERNEL_SUMS 16

/* Rows of one channel as lines of 16-bit numbers, with the zero point around the image. Row y is line y % rows. Lines
 * reach from `top` before an output row to its last input row; taps that no window has are zeros. All that an output
 * writes over is in lines by then, so no ring is needed. */
typedef struct {
    int32_t rows, words, length; /* lines, pairs of taps in each, numbers in each */
    int32_t copied;              /* numbers of a row of the input that a line holds */
    int32_t stride;              /* columns from window to window */
    int32_t square;              /* three lines and taps that lie one apart, moved by one or two columns */
    KernelLimits to;
} KernelLines;

static KernelLines kernel_lines(const KernelDepthwise *p) {
    const KernelWindow *w = &p->window;
    const int32_t rows = (w->kernel_rows - 1) * w->row_dilation + 1;
    const int32_t columns = (w->kernel_columns - 1) * w->column_dilation + 1;
    const int32_t words = (columns + 1) / 2, outputs = (w->out_columns + 1) & ~1;
    const int32_t length = ((outputs - 1) * w->column_stride + 2 * words + 1) & ~1;
    const int32_t copied = kernel_smaller(w->in_columns, length - w->left);
    const int32_t square = w->kernel_rows == 3 && w->kernel_columns == 3 && w->row_dilation == 1 &&
                           w->column_dilation == 1 && w->top < 3 && w->column_stride < 3;
    const KernelLines lines = {rows > w->top ? rows : w->top + 1, words, length, copied, w->column_stride,
                               square, kernel_limits(&p->to)};
    return lines;
}

static void kernel_copy_line(const KernelDepthwise *p, const int8_t *in, int32_t n, int16_t *line) {
    const int32_t step = p->window.channels;
    for (; n >= 4; n -= 4) {
        line[0] = in[0];
        line[1] = in[step];
        in += 2 * step;
        line[2] = in[0];
        line[3] = in[step];
        in += 2 * step;
        line += 4;
    }
    for (; n > 0; n--) {
        *line++ = *in;
        in += step;
    }
}

static void kernel_fill_line(int16_t number, int32_t n, int16_t *line) {
    for (; n > 0; n--) {
        *line++ = number;
    }
}

/* The taps of a channel twice, so that they can begin at any line. */
static void kernel_taps(const KernelDepthwise *p, const int8_t *weight, int32_t step, const KernelLines *lines,
                        int16_t *taps) {
    const KernelWindow *w = &p->window;
    const int32_t half = 2 * lines->rows * lines->words;
    memset(taps, 0, (size_t)(2 * half) * sizeof *taps);
    for (int32_t i = 0; i < w->kernel_rows; i++) {
        int16_t *to = taps + 2 * i * w->row_dilation * lines->words;
        for (int32_t j = 0; j < w->kernel_columns; j++) {
            to[0] = *weight;
            to[half] = *weight;
            to += w->column_dilation;
            weight += step;
        }
    }
}

/* The same where lines and taps are three: for each line the first and second tap, and the second and third. */
static void kernel_square_taps(const int8_t *weight, int32_t step, KernelWord *taps) {
    for (int32_t i = 0; i < 3; i++) {
        const int32_t first = weight[0], second = weight[step], third = weight[2 * step];
        taps[0] = kernel_pair(first, second);
        taps[1] = kernel_pair(second, third);
        taps[6] = taps[0];
        taps[7] = taps[1];
        taps += 2;
        weight += 3 * step;
    }
}

/* Sums of `n` windows that lie `stride` apart, two at a time. */
KERNEL_APART static void kernel_line_sums(const KernelLines *lines, const int16_t *numbers, const KernelWord *taps,
                                          int32_t bias, int32_t n, int32_t *sums) {
    const int32_t stride = lines->stride, words = lines->words, step = lines->length - 2 * words;
    for (const int32_t *end = sums + n; sums < end; sums += 2) {
        const KernelWord *w = taps;
        const int16_t *x = numbers;
        int32_t first = bias, second = bias, i = lines->rows;
        do {
            int32_t j = words;
            do {
                int32_t a, b;
                memcpy(&a, x, sizeof a);
                memcpy(&b, x + stride, sizeof b);
                first = kernel_both(a, *w, first);
                second = kernel_both(b, *w++, second);
                x += 2;
            } while (--j);
            x += step;
        } while (--i);
        sums[0] = first;
        sums[1] = second;
        numbers += 2 * stride;
    }
}

/* The same of three by three taps, moved by two columns. */
KERNEL_APART static void kernel_square_sums_by_two(const KernelLines *lines, const int16_t *numbers,
                                                   const KernelWord *taps, int32_t bias, int32_t n, int32_t *sums) {
    const KernelWord *x = (const KernelWord *)numbers, *y = x + lines->length / 2, *z = y + lines->length / 2;
    const int32_t a = taps[0], b = taps[1], c = taps[2], d = taps[3], e = taps[4], f = taps[5];
    for (const int32_t *end = sums + n; sums < end; sums += 2) {
        int32_t first = kernel_low_high(x[1], b, kernel_both(x[0], a, bias));
        int32_t second = kernel_low_high(x[2], b, kernel_both(x[1], a, bias));
        first = kernel_low_high(y[1], d, kernel_both(y[0], c, first));
        second = kernel_low_high(y[2], d, kernel_both(y[1], c, second));
        first = kernel_low_high(z[1], f, kernel_both(z[0], e, first));
        second = kernel_low_high(z[2], f, kernel_both(z[1], e, second));
        sums[0] = first;
        sums[1] = second;
        x += 2, y += 2, z += 2;
    }
}

/* The same, moved by one column. */
KERNEL_APART static void kernel_square_sums_by_one(const KernelLines *lines, const int16_t *numbers,
                                                   const KernelWord *taps, int32_t bias, int32_t n, int32_t *sums) {
    const KernelWord *x = (const KernelWord *)numbers, *y = x + lines->length / 2, *z = y + lines->length / 2;
    const int32_t a = taps[0], b = taps[1], c = taps[2], d = taps[3], e = taps[4], f = taps[5];
    for (const int32_t *end = sums + n; sums < end; sums += 2) {
        int32_t first = kernel_low_high(x[1], b, kernel_both(x[0], a, bias));
        int32_t second = kernel_both(x[1], b, kernel_high_low(x[0], a, bias));
        first = kernel_low_high(y[1], d, kernel_both(y[0], c, first));
        second = kernel_both(y[1], d, kernel_high_low(y[0], c, second));
        first = kernel_low_high(z[1], f, kernel_both(z[0], e, first));
        second = kernel_both(z[1], f, kernel_high_low(z[0], e, second));
        sums[0] = first;
        sums[1] = second;
        x++, y++, z++;
    }
}

KERNEL_APART static void kernel_line_outputs(const int32_t *sums, int32_t n, float multiplier, const KernelLimits *to,
                                             int32_t step, int8_t *out) {
    const int32_t zero = to->zero;
    if (to->narrow) {
        const KernelLimits limits = *to;
        for (const int32_t *end = sums + n; sums < end; out += step) {
            *out = (int8_t)kernel_within(kernel_nearest(*sums++, multiplier, zero), &limits);
        }
        return;
    }
    for (const int32_t *end = sums + n; sums < end; out += step) {
        *out = (int8_t)kernel_nearest(*sums++, multiplier, zero);
    }
}

/* A row of outputs of one channel; `taps` begin with those for the first line. */
static void kernel_line_row(const KernelDepthwise *p, const KernelLines *lines, int32_t channel, const int16_t *numbers,
                            const KernelWord *taps, int8_t *out) {
    const KernelWindow *w = &p->window;
    const int32_t bias = p->bias[channel];
    int32_t sums[KERNEL_SUMS];
    for (int32_t left = w->out_columns; left > 0; left -= KERNEL_SUMS) {
        const int32_t n = kernel_smaller(KERNEL_SUMS, left);
        if (lines->square && lines->stride == 1) {
            kernel_square_sums_by_one(lines, numbers, taps, bias, n, sums);
        } else if (lines->square) {
            kernel_square_sums_by_two(lines, numbers, taps, bias, n, sums);
        } else {
            kernel_line_sums(lines, numbers, taps, bias, n, sums);
        }
        kernel_line_outputs(sums, n, p->multiplier[channel], &lines->to, w->channels, out);
        numbers += KERNEL_SUMS * w->column_stride;
        out += KERNEL_SUMS * w->channels;
    }
}

/* One channel; `in` and `out` begin with it. */
static void kernel_depthwise_channel(const KernelDepthwise *p, const KernelLines *lines, int32_t channel,
                                     const int8_t *in, int8_t *out, int16_t *numbers) {
    const KernelWindow *w = &p->window;
    const int32_t block = channel / KERNEL_BLOCK * KERNEL_BLOCK, rows = lines->rows;
    const int8_t *weight = p->weight + block * w->kernel_rows * w->kernel_columns + channel - block;
    const int32_t step = kernel_smaller(KERNEL_BLOCK, w->channels - block);
    KernelWord taps[KERNEL_TAPS];
    int32_t y = -w->top, line = 0; /* the next row of the input, and where it comes to lie */
    int32_t first = 0;             /* the line of the first row of the window */
    if (lines->square) {
        kernel_square_taps(weight, step, taps);
    } else {
        kernel_taps(p, weight, step, lines, (int16_t *)taps);
    }
    for (int32_t r = 0; r < w->out_rows; r++) {
        for (const int32_t end = r * w->row_stride - w->top + rows; y < end; y++) {
            int16_t *to = numbers + line * lines->length + w->left;
            if (y >= 0 && y < w->in_rows) {
                kernel_copy_line(p, in + y * w->in_columns * w->channels, lines->copied, to);
            } else {
                kernel_fill_line(p->in_zero, lines->copied, to);
            }
            line = line + 1 < rows ? line + 1 : 0;
        }
        kernel_line_row(p, lines, channel, numbers, taps + (first ? rows - first : 0) * lines->words, out);
        first = (first + w->row_stride) % rows;
        out += w->out_columns * w->channels;
    }
}

void kernel_depthwise(const KernelDepthwise *p, const int8_t *in, int8_t *out, int8_t *ring) {
    const KernelLines lines = kernel_lines(p);
    KernelWord words[KERNEL_LINES];
    int16_t *numbers = (int16_t *)words;
    (void)ring;
    kernel_fill_line(p->in_zero, lines.rows * lines.length, numbers);
    for (int32_t c = 0; c < p->window.channels; c++) {
        kernel_depthwise_channel(p, &lines, c, in + c, out + c, numbers);
    }
}
#endif

#if !KERNEL_DSP
/* Sums of products of patches, which lie one after the other, with `n` rows of weights, which lie `step` apart. The sums
 * of a patch lie KERNEL_BLOCK apart from those of the next. Two rows at a time; one that is left over goes with itself. */
#if KERNEL_PIXELS == 4
KERNEL_APART static void kernel_dots(const KernelNumber *x, int32_t length, const int8_t *w, int32_t step, int32_t n,
                                     const int32_t *bias, int32_t *sums) {
    const KernelNumber *y = x + length, *z = y + length, *u = z + length;
    for (; n > 0; n -= 2) {
        const int32_t next = n > 1;
        const int8_t *v = next ? w + step : w;
        int32_t x0 = 0, x1 = 0, y0 = 0, y1 = 0, z0 = 0, z1 = 0, u0 = 0, u1 = 0;
        for (int32_t i = 0; i < length; i++) {
            x0 += x[i] * w[i];
            x1 += x[i] * v[i];
            y0 += y[i] * w[i];
            y1 += y[i] * v[i];
            z0 += z[i] * w[i];
            z1 += z[i] * v[i];
            u0 += u[i] * w[i];
            u1 += u[i] * v[i];
        }
        sums[0] = bias[0] + x0;
        sums[next] = bias[next] + x1;
        sums[KERNEL_BLOCK] = bias[0] + y0;
        sums[KERNEL_BLOCK + next] = bias[next] + y1;
        sums[2 * KERNEL_BLOCK] = bias[0] + z0;
        sums[2 * KERNEL_BLOCK + next] = bias[next] + z1;
        sums[3 * KERNEL_BLOCK] = bias[0] + u0;
        sums[3 * KERNEL_BLOCK + next] = bias[next] + u1;
        sums += 2;
        bias += 2;
        w = v + step;
    }
}
#else
KERNEL_APART static void kernel_dots(const KernelNumber *x, int32_t length, const int8_t *w, int32_t step, int32_t n,
                                     const int32_t *bias, int32_t *sums) {
    const KernelNumber *y = x + length;
    for (; n > 0; n -= 2) {
        const int32_t next = n > 1;
        const int8_t *v = next ? w + step : w;
        int32_t x0 = 0, x1 = 0, y0 = 0, y1 = 0;
        for (int32_t i = 0; i < length; i++) {
            x0 += x[i] * w[i];
            x1 += x[i] * v[i];
            y0 += y[i] * w[i];
            y1 += y[i] * v[i];
        }
        sums[0] = bias[0] + x0;
        sums[next] = bias[next] + x1;
        sums[KERNEL_BLOCK] = bias[0] + y0;
        sums[KERNEL_BLOCK + next] = bias[next] + y1;
        sums += 2;
        bias += 2;
        w = v + step;
    }
}
#endif

/* Neighbouring output pixels; those after the last one are the last one again. */
static void kernel_conv_pixels(const KernelConv *p, const int8_t *in, const KernelPlace *at, int32_t last,
                               int8_t *out) {
    const int32_t channels = p->in_channels / p->groups, outputs = p->out_channels / p->groups;
    const int32_t numbers = p->kernel_rows * p->kernel_columns * channels;
    const int32_t whole = (numbers + KERNEL_VECTOR - 1) / KERNEL_VECTOR * KERNEL_VECTOR;
    const int32_t length = p->length > numbers ? kernel_smaller(whole, p->length) : numbers;
    KernelNumber patch[KERNEL_PIXELS * KERNEL_PATCH];
    int32_t sums[KERNEL_PIXELS * KERNEL_BLOCK];
    for (int32_t g = 0; g < p->groups; g++) {
        for (int32_t i = 0; i < KERNEL_PIXELS; i++) {
            kernel_patch(p, in + g * channels, at[i], length, patch + i * length);
        }
        for (int32_t o = g * outputs; o < (g + 1) * outputs; o += KERNEL_BLOCK) {
            const int32_t n = kernel_smaller(KERNEL_BLOCK, (g + 1) * outputs - o);
            kernel_dots(patch, length, p->weight + o * p->length, p->length, n, p->bias + o, sums);
            for (int32_t i = 0; i <= last; i++) {
                kernel_requantize(sums + i * KERNEL_BLOCK, p->multiplier + o, n, &p->to, out + i * p->out_channels + o);
            }
        }
    }
}

static void kernel_conv_direct(const KernelConv *p, const int8_t *in, int8_t *out) {
    const int8_t *w = p->weight;
    int32_t sums[KERNEL_BLOCK];
    for (int32_t o = 0; o < p->out_channels; o += KERNEL_BLOCK) {
        const int32_t n = kernel_smaller(KERNEL_BLOCK, p->out_channels - o);
        for (int32_t row = 0; row < n; row++) {
            int32_t sum = 0;
            for (int32_t i = 0; i < p->length; i++) {
                sum += in[i] * w[i];
            }
            sums[row] = p->bias[o + row] + sum;
            w += p->length;
        }
        kernel_requantize(sums, p->multiplier + o, n, &p->to, out + o);
    }
}
#endif

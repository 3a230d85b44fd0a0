#if KERNEL_DSP
/* Two patches as the instructions take them: of four numbers the first and third of each, then the second and fourth;
 * what is left over one by one. */
static void kernel_interleave(const int8_t *x, const int8_t *y, int32_t numbers, int32_t *to) {
    for (; numbers >= 4; numbers -= 4) {
        const int32_t a = kernel_word(x), b = kernel_word(y);
        to[0] = kernel_first(a);
        to[1] = kernel_first(b);
        to[2] = kernel_second(a);
        to[3] = kernel_second(b);
        x += 4;
        y += 4;
        to += 4;
    }
    for (; numbers > 0; numbers--) {
        *to++ = kernel_pair(*x++, *y++);
    }
}

/* Two patches with rows of weights. */
typedef struct {
    const int32_t *patch;
    const int8_t *w;
    int32_t numbers, length; /* of a patch, of a row of weights */
    int32_t x0, y0, x1, y1;  /* sums of both patches with row `w`, and with the next */
} KernelDots;

/* Adds the products of whole fours; the weights are then behind them. In assembly, since compilers find no room for
 * everything in registers. */
KERNEL_INLINE const int32_t *kernel_fours(KernelDots *d, const int8_t *v) {
    const int32_t *patch = d->patch;
    const int8_t *last = d->w + (d->numbers & ~3);
    int32_t a, b, c, x, y;
    __asm__ volatile("1:\n\t"
                     "ldr %[a], [%[w]], #4\n\t"
                     "ldrd %[x], %[y], [%[patch]], #8\n\t"
                     "ldr %[b], [%[v]], #4\n\t"
                     "sxtb16 %[c], %[a]\n\t"
                     "smlad %[x0], %[x], %[c], %[x0]\n\t"
                     "smlad %[y0], %[y], %[c], %[y0]\n\t"
                     "sxtb16 %[c], %[b]\n\t"
                     "smlad %[x1], %[x], %[c], %[x1]\n\t"
                     "smlad %[y1], %[y], %[c], %[y1]\n\t"
                     "ldrd %[x], %[y], [%[patch]], #8\n\t"
                     "sxtb16 %[a], %[a], ror #8\n\t"
                     "sxtb16 %[b], %[b], ror #8\n\t"
                     "smlad %[x0], %[x], %[a], %[x0]\n\t"
                     "smlad %[y0], %[y], %[a], %[y0]\n\t"
                     "smlad %[x1], %[x], %[b], %[x1]\n\t"
                     "smlad %[y1], %[y], %[b], %[y1]\n\t"
                     "cmp %[w], %[last]\n\t"
                     "bcc 1b"
                     : [x0] "+r"(d->x0), [y0] "+r"(d->y0), [x1] "+r"(d->x1), [y1] "+r"(d->y1), [w] "+r"(d->w),
                       [v] "+r"(v), [patch] "+r"(patch), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [x] "=&r"(x),
                       [y] "=&r"(y)
                     : [last] "r"(last)
                     : "cc", "memory");
    return patch;
}

/* One number after the other. */
KERNEL_INLINE void kernel_rest(KernelDots *d, const int32_t *patch) {
    const int8_t *w = d->w;
    for (int32_t n = d->numbers & 3; n > 0; n--) {
        const int32_t first = w[0], second = w[d->length];
        d->x0 = kernel_low(*patch, first, d->x0);
        d->y0 = kernel_high_low(*patch, first, d->y0);
        d->x1 = kernel_low(*patch, second, d->x1);
        d->y1 = kernel_high_low(*patch++, second, d->y1);
        w++;
    }
}

/* Two outputs, `one` apart, of two pixels, `apart` apart. */
typedef struct {
    KernelLimits to;
    int32_t one, apart;
} KernelStore;

KERNEL_INLINE void kernel_store(const KernelDots *d, const float *multiplier, const KernelStore *s, int8_t *out) {
    const float first = multiplier[0], second = multiplier[s->one];
    int32_t x0 = kernel_nearest(d->x0, first, s->to.zero), y0 = kernel_nearest(d->y0, first, s->to.zero);
    int32_t x1 = kernel_nearest(d->x1, second, s->to.zero), y1 = kernel_nearest(d->y1, second, s->to.zero);
    if (s->to.narrow) {
        x0 = kernel_within(x0, &s->to);
        y0 = kernel_within(y0, &s->to);
        x1 = kernel_within(x1, &s->to);
        y1 = kernel_within(y1, &s->to);
    }
    out[0] = (int8_t)x0;
    out[s->one] = (int8_t)x1;
    out += s->apart;
    out[0] = (int8_t)y0;
    out[s->one] = (int8_t)y1;
}

/* `outputs` from the `o`-th on, of two pixels; a single one goes with itself, and one that is left over with the one
 * before it. */
KERNEL_APART static void kernel_conv_outputs(const KernelConv *p, const int32_t *patch, int32_t numbers, int32_t o,
                                             int32_t outputs, int8_t *out, int32_t apart) {
    const KernelStore store = {kernel_limits(&p->to), outputs > 1, apart};
    const int32_t length = outputs > 1 ? p->length : 0;
    const int32_t end = o + outputs;
    while (o < end) {
        if (o + store.one == end) {
            o--;
        }
        KernelDots d = {patch, p->weight + o * p->length, numbers, length, p->bias[o], 0, p->bias[o + store.one], 0};
        d.y0 = d.x0;
        d.y1 = d.x1;
        const int32_t *rest = numbers >= 4 ? kernel_fours(&d, d.w + length) : patch;
        kernel_rest(&d, rest);
        kernel_store(&d, p->multiplier + o, &store, out + o);
        o += 2;
    }
}

/* Two output pixels, the last one twice where it is left over. */
static void kernel_conv_pixels(const KernelConv *p, const int8_t *in, const KernelPlace *at, int32_t last,
                               int8_t *out) {
    const int32_t channels = p->in_channels / p->groups, outputs = p->out_channels / p->groups;
    const int32_t window = p->kernel_rows * p->kernel_columns;
    const int in_place = window == 1 && p->top == 0 && p->left == 0;
    int8_t copied[2 * KERNEL_COPIED];
    int32_t patch[KERNEL_PATCH];
    for (int32_t g = 0; g < p->groups; g++) {
        const int8_t *from[2];
        for (int32_t i = 0; i < 2; i++) {
            from[i] = in + (at[i].row * p->in_columns + at[i].column) * p->in_channels + g * channels;
            if (!in_place) {
                kernel_patch(p, in + g * channels, at[i], window * channels, copied + i * KERNEL_COPIED);
                from[i] = copied + i * KERNEL_COPIED;
            }
        }
        kernel_interleave(from[0], from[1], window * channels, patch);
        kernel_conv_outputs(p, patch, window * channels, g * outputs, outputs, out, last * p->out_channels);
    }
}

/* A window over the whole image, two outputs at a time. */
static void kernel_conv_direct(const KernelConv *p, const int8_t *in, int8_t *out) {
    const KernelStore store = {kernel_limits(&p->to), p->out_channels > 1, 0};
    const int32_t length = p->length, step = store.one ? length : 0;
    for (int32_t o = 0; o < p->out_channels; o += 2) {
        if (o + store.one == p->out_channels) {
            o--;
        }
        const int8_t *w = p->weight + o * length, *v = w + step, *x = in, *last = in + (length & ~3);
        int32_t x0 = p->bias[o], x1 = p->bias[o + store.one];
        while (x < last) {
            const int32_t a = kernel_word(x), b = kernel_word(w), c = kernel_word(v);
            const int32_t first = kernel_first(a), second = kernel_second(a);
            x0 = kernel_both(first, kernel_first(b), x0);
            x1 = kernel_both(first, kernel_first(c), x1);
            x0 = kernel_both(second, kernel_second(b), x0);
            x1 = kernel_both(second, kernel_second(c), x1);
            w += 4;
            v += 4;
            x += 4;
        }
        for (; x < in + length; x++) {
            x0 += *x * *w++;
            x1 += *x * *v++;
        }
        const KernelDots d = {0, w, length, step, x0, x0, x1, x1};
        kernel_store(&d, p->multiplier + o, &store, out + o);
    }
}
#endif

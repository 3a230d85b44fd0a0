/* The whole part of a square root. */
static uint32_t kernel_root(uint64_t x) {
    uint64_t root = 0, bit = (uint64_t)1 << 62;
    while (bit > x) {
        bit >>= 2;
    }
    for (; bit; bit >>= 2) {
        const uint64_t next = root + bit;
        root >>= 1;
        if (x >= next) {
            x -= next;
            root += bit;
        }
    }
    return (uint32_t)root;
}

void kernel_normalize(const KernelNormalize *p, const int8_t *in, int8_t *out) {
    const float low = kernel_lowest(&p->to), high = kernel_highest(&p->to), most = p->most;
    const int32_t count = p->count, zero = p->to.zero;
    int32_t channel = 0, within = 0;
    for (int32_t row = 0; row < p->rows; row++) {
        int32_t sum = 0, squares = 0;
        for (int32_t i = 0; i < count; i++) {
            sum += in[i];
            squares += in[i] * in[i];
        }
        const int64_t spread = (int64_t)count * squares - (int64_t)sum * sum;
        const float inverse = 1.0f / (float)kernel_root(((uint64_t)spread << p->bits) + p->least);
        for (int32_t i = 0; i < count; i++) {
            const float product = (float)(count * in[i] - sum) * inverse * p->factor[channel];
            out[i] = kernel_rounded((product > most ? most : product) + p->shift[channel], low, high, zero);
            if (++within == p->inner) {
                within = 0;
                channel = channel + 1 < p->channels ? channel + 1 : 0;
            }
        }
        in += count;
        out += count;
    }
}

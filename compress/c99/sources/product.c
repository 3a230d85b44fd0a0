void kernel_product(const KernelProduct *p, const int8_t *a, const int8_t *b, int8_t *out) {
    const float low = kernel_lowest(&p->to), high = kernel_highest(&p->to), multiplier = p->multiplier;
    const int32_t depth = p->depth, a_zero = p->a_zero, b_zero = p->b_zero, zero = p->to.zero;
    for (int32_t part = 0; part < p->parts; part++) {
        for (int32_t row = 0; row < p->rows; row++) {
            const int8_t *other = b;
            for (int32_t column = 0; column < p->columns; column++) {
                int32_t sum = 0;
                for (int32_t i = 0; i < depth; i++) {
                    sum += (a[i] - a_zero) * (other[i] - b_zero);
                }
                *out++ = kernel_rounded((float)sum * multiplier, low, high, zero);
                other += depth;
            }
            a += depth;
        }
        b += p->columns * depth;
    }
}

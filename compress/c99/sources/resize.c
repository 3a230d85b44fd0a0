void kernel_resize(const KernelResize *p, const int8_t *in, int8_t *out) {
    const float low = kernel_lowest(&p->to), high = kernel_highest(&p->to), multiplier = p->multiplier;
    const int32_t channels = p->channels, zero = p->zero, to_zero = p->to.zero;
    for (int32_t row = 0; row < p->to_height; row++) {
        const int32_t y = p->rows[row], lower = p->row_parts[row], upper = KERNEL_PARTS - lower;
        const int32_t down = y + 1 < p->height ? p->width * channels : 0;
        for (int32_t column = 0; column < p->to_width; column++) {
            const int32_t x = p->columns[column], second = p->column_parts[column], first = KERNEL_PARTS - second;
            const int32_t right = x + 1 < p->width ? channels : 0;
            const int8_t *at = in + (y * p->width + x) * channels;
            for (int32_t c = 0; c < channels; c++, at++) {
                const int32_t above = (at[0] - zero) * first + (at[right] - zero) * second;
                const int32_t below = (at[down] - zero) * first + (at[down + right] - zero) * second;
                *out++ = kernel_rounded((float)(above * upper + below * lower) * multiplier, low, high, to_zero);
            }
        }
    }
}

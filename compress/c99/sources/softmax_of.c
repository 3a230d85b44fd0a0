static float kernel_number(const KernelSoftmaxOf *p, int8_t x, int32_t place) {
    if (p->numbers) {
        return p->numbers[x + 128];
    }
    const float product = (float)(x - p->zero) * p->up[place];
    return (product > p->most ? p->most : product) + p->shift[place];
}

static float kernel_power(const KernelSoftmaxOf *p, float below) {
    const float steps = below * 2048.0f;
    const int32_t n = steps < 65535.0f ? (int32_t)steps : 65535;
    return p->coarse[n >> 8] * p->fine[n & 255];
}

void kernel_softmax_of(const KernelSoftmaxOf *p, const int8_t *in, int8_t *out) {
    const float low = kernel_lowest(&p->to), high = kernel_highest(&p->to);
    int32_t place = 0;
    for (int32_t pixel = 0; pixel < p->pixels; pixel++) {
        float largest = kernel_number(p, in[0], place), sum = 0.0f;
        for (int32_t i = 1; i < p->channels; i++) {
            const float x = kernel_number(p, in[i], (place + i) % p->period);
            largest = x > largest ? x : largest;
        }
        for (int32_t i = 0; i < p->channels; i++) {
            sum += kernel_power(p, largest - kernel_number(p, in[i], (place + i) % p->period));
        }
        for (int32_t i = 0; i < p->channels; i++) {
            const float share = kernel_power(p, largest - kernel_number(p, in[i], (place + i) % p->period)) / sum;
            out[i] = kernel_rounded(share / p->scale, low, high, p->to.zero);
        }
        place = (place + p->channels) % p->period;
        in += p->channels;
        out += p->channels;
    }
}

void kernel_softmax(const KernelSoftmax *p, const int8_t *in, int8_t *out) {
    const float low = kernel_lowest(&p->to), high = kernel_highest(&p->to);
    for (int32_t pixel = 0; pixel < p->pixels; pixel++) {
        int8_t largest = in[0];
        float sum = 0.0f;
        for (int32_t i = 1; i < p->channels; i++) {
            largest = in[i] > largest ? in[i] : largest;
        }
        for (int32_t i = 0; i < p->channels; i++) {
            sum += p->powers[largest - in[i]];
        }
        for (int32_t i = 0; i < p->channels; i++) {
            const float share = p->powers[largest - in[i]] / sum;
            out[i] = kernel_rounded(share / p->scale, low, high, p->to.zero);
        }
        in += p->channels;
        out += p->channels;
    }
}

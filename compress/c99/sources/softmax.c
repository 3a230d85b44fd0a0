void kernel_softmax(const KernelSoftmax *p, const int8_t *in, int8_t *out) {
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
        out[i] = kernel_rounded(share / p->scale, p->to.low, p->to.high, p->to.zero);
    }
}

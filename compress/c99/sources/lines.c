void kernel_lines(const KernelLines *p, const int8_t *in, int8_t *out) {
    const float low = kernel_lowest(&p->to), high = kernel_highest(&p->to), most = p->most;
    const int32_t zero = p->zero, to_zero = p->to.zero;
    for (int32_t pixel = 0; pixel < p->pixels; pixel++) {
        for (int32_t c = 0; c < p->channels; c++) {
            const float x = (float)(in[c] - zero), product = x * (x < 0.0f ? p->down[c] : p->up[c]);
            out[c] = kernel_rounded((product > most ? most : product) + p->shift[c], low, high, to_zero);
        }
        in += p->channels;
        out += p->channels;
    }
}

void kernel_channels(const int8_t *in, int32_t channels, int8_t *out, int32_t step, int32_t pixels,
                     const int8_t *table) {
    for (int32_t pixel = 0; pixel < pixels; pixel++) {
        for (int32_t c = 0; c < channels; c++) {
            out[c] = table ? table[in[c] + 128] : in[c];
        }
        in += channels;
        out += step;
    }
}

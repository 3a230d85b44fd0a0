void kernel_table(const int8_t *table, const int8_t *in, int8_t *out, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        out[i] = table[in[i] + 128];
    }
}

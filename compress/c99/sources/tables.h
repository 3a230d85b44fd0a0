/* A function of one number for each channel; channels begin again after the last one. */
void kernel_tables(const int8_t *tables, int32_t channels, int32_t pixels, const int8_t *in, int8_t *out);

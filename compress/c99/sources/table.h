/* Any function of one number: its value for each of -128..127. */
void kernel_table(const int8_t *table, const int8_t *in, int8_t *out, int32_t n);

void kernel_add(const KernelBinary *p, const int8_t *a, const int8_t *b, int8_t *out);

void kernel_max_pool(const KernelWindow *w, const int8_t *in, int8_t *out, int8_t *ring);

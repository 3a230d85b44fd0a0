static inline int32_t kernel_smaller(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* Rows of one tensor times rows of another, in parts that have as many of both. */
typedef struct {
    int32_t parts, rows, columns, depth;
    float multiplier;
    int8_t a_zero, b_zero;
    KernelOutput to;
} KernelProduct;
void kernel_product(const KernelProduct *p, const int8_t *a, const int8_t *b, int8_t *out);

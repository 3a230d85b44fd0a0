/* Where sums go: saturated to limits, and the zero point. */
typedef struct {
    int8_t low, high, zero;
} KernelOutput;

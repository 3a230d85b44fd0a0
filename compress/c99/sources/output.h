/* Where sums go: saturated to limits, which are given without the zero point. */
typedef struct {
    float low, high;
    int16_t zero;
} KernelOutput;

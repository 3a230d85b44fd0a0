/* Where the numbers of two tensors lie in the rows of the innermost loop. */
typedef struct {
    int32_t a, b, done[KERNEL_OPERAND_LOOPS];
} KernelOperands;

/* Goes on to the next row; 0 after the last one. */
static int kernel_next_row(const KernelBinary *p, KernelOperands *at) {
    for (int32_t loop = KERNEL_OPERAND_LOOPS - 2; loop >= 0; loop--) {
        at->a += p->a_steps[loop];
        at->b += p->b_steps[loop];
        if (++at->done[loop] < p->sizes[loop]) {
            return 1;
        }
        at->a -= p->sizes[loop] * p->a_steps[loop];
        at->b -= p->sizes[loop] * p->b_steps[loop];
        at->done[loop] = 0;
    }
    return 0;
}

/* Neighbouring numbers, or one number as often as needed. */
static const int8_t *kernel_operand(const int8_t *x, int32_t step, int32_t c, int8_t *repeated) {
    if (step) {
        return x + c;
    }
    memset(repeated, *x, KERNEL_BLOCK);
    return repeated;
}

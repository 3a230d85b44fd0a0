/* Two tensors in loops, the innermost last: how often each runs, and how far each tensor goes on in it; 0 where a number
 * stands for several. The innermost goes on by 0 or 1. */
#define KERNEL_OPERAND_LOOPS 5
typedef struct {
    int32_t sizes[KERNEL_OPERAND_LOOPS], a_steps[KERNEL_OPERAND_LOOPS], b_steps[KERNEL_OPERAND_LOOPS];
    float a_scale, b_scale, scale, most;
    int8_t a_zero, b_zero;
    KernelOutput to;
} KernelBinary;

/* Loops in loops, the innermost last: how often each runs, and how far it goes on in what is read and written. */
#define KERNEL_LOOPS 5
typedef struct {
    int32_t from, to;
    int32_t sizes[KERNEL_LOOPS], read_steps[KERNEL_LOOPS], write_steps[KERNEL_LOOPS];
} KernelMove;
/* Copies, through a table if there is one. */
void kernel_move(const KernelMove *p, const int8_t *in, int8_t *out, const int8_t *table);
/* The same number everywhere. */
void kernel_fill(int8_t *out, int32_t n, int8_t value);

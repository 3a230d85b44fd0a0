/* Some channels of one pixel. They go through a block of their own, since the output may lie over an input. `most` is
 * larger than any product: it keeps the products apart from the sum, as the limits do in kernel_rounded. */
KERNEL_APART static void kernel_add_some(const KernelBinary *p, const int8_t *a, const int8_t *b, int32_t n, int8_t *out) {
    const float a_scale = p->a_scale, b_scale = p->b_scale, scale = p->scale, most = p->most;
    const float low = kernel_lowest(&p->to), high = kernel_highest(&p->to);
    const int32_t a_zero = p->a_zero, b_zero = p->b_zero, zero = p->to.zero;
    int8_t block[KERNEL_BLOCK];
    for (int32_t c = 0; c < n; c++) {
        const float x = (float)(a[c] - a_zero) * a_scale, y = (float)(b[c] - b_zero) * b_scale;
        const float sum = (x > most ? most : x) + (y > most ? most : y);
        block[c] = kernel_rounded(sum / scale, low, high, zero);
    }
    memcpy(out, block, (size_t)n);
}

void kernel_add(const KernelBinary *p, const int8_t *a, const int8_t *b, int8_t *out) {
    const int32_t last = KERNEL_OPERAND_LOOPS - 1, numbers = p->sizes[last];
    KernelOperands at = {0, 0, {0}};
    int8_t first[KERNEL_BLOCK], second[KERNEL_BLOCK];
    do {
        for (int32_t c = 0; c < numbers; c += KERNEL_BLOCK) {
            const int8_t *x = kernel_operand(a + at.a, p->a_steps[last], c, first);
            const int8_t *y = kernel_operand(b + at.b, p->b_steps[last], c, second);
            kernel_add_some(p, x, y, kernel_smaller(KERNEL_BLOCK, numbers - c), out + c);
        }
        out += numbers;
    } while (kernel_next_row(p, &at));
}

#if KERNEL_DSP
static KernelNumber *kernel_widen(const int8_t *in, int32_t n, int32_t added, KernelNumber *to) {
    (void)added;
    memcpy(to, in, (size_t)n);
    return to + n;
}
#else
KERNEL_APART static KernelNumber *kernel_widen(const int8_t *in, int32_t n, int32_t added, KernelNumber *restrict to) {
    for (int32_t i = 0; i < n; i++) {
        to[i] = (KernelNumber)(in[i] + added);
    }
    return to + n;
}
#endif

/* The row and column of the input under the first number of a window. */
typedef struct {
    int32_t row, column;
} KernelPlace;

/* The numbers under a window, those of a group from `in` on; outside the image lies the zero point. */
KERNEL_APART static KernelNumber *kernel_edge_patch(const KernelConv *p, const int8_t *in, KernelPlace at,
                                                    KernelNumber *patch) {
    const int32_t channels = p->in_channels / p->groups, added = KERNEL_ADDED(p->in_zero);
    for (int32_t i = 0; i < p->kernel_rows; i++) {
        const int32_t y = at.row + i * p->row_dilation;
        for (int32_t j = 0; j < p->kernel_columns; j++) {
            const int32_t x = at.column + j * p->column_dilation;
            if (y >= 0 && y < p->in_rows && x >= 0 && x < p->in_columns) {
                patch = kernel_widen(in + (y * p->in_columns + x) * p->in_channels, channels, added, patch);
                continue;
            }
            for (int32_t c = 0; c < channels; c++) {
                *patch++ = (KernelNumber)(p->in_zero + added);
            }
        }
    }
    return patch;
}

/* The same, then zeros up to `length`. Where rows of the window lie in one piece they are taken so. */
static void kernel_patch(const KernelConv *p, const int8_t *in, KernelPlace at, int32_t length, KernelNumber *patch) {
    const KernelNumber *end = patch + length;
    const int inside = at.row >= 0 && at.row + (p->kernel_rows - 1) * p->row_dilation < p->in_rows && at.column >= 0 &&
                       at.column + p->kernel_columns <= p->in_columns;
    if (inside && p->groups == 1 && p->column_dilation == 1) {
        const int32_t step = p->row_dilation * p->in_columns * p->in_channels;
        in += (at.row * p->in_columns + at.column) * p->in_channels;
        for (int32_t i = 0; i < p->kernel_rows; i++) {
            patch = kernel_widen(in, p->kernel_columns * p->in_channels, KERNEL_ADDED(p->in_zero), patch);
            in += step;
        }
    } else {
        patch = kernel_edge_patch(p, in, at, patch);
    }
    while (patch < end) {
        *patch++ = 0;
    }
}

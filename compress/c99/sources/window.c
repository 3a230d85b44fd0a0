/* Windows over single channels, which may write their output over their input: rows that are overwritten while later
 * windows still read them are copied into a ring beside it. */

typedef struct {
    const KernelWindow *w;
    const int8_t *in; /* from the first channel of the block on */
    int8_t *ring;
    int32_t channels; /* of the block */
    int32_t kept;     /* rows up to here are in the ring, if a later window reads them */
} KernelRows;

/* Copies the input rows that row `r` of the output overwrites. */
static inline void kernel_keep(KernelRows *rows, int32_t r) {
    const KernelWindow *w = rows->w;
    if (w->ring_rows == 0) {
        return;
    }
    const int32_t written = ((r + 1) * w->out_columns + w->in_columns - 1) / w->in_columns;
    const int32_t end = kernel_smaller(written, w->in_rows);
    for (int32_t row = rows->kept; row < end; row++) {
        if (row < r * w->row_stride - w->top) {
            continue;
        }
        const int8_t *from = rows->in + row * w->in_columns * w->channels;
        int8_t *to = rows->ring + (row % w->ring_rows) * w->in_columns * rows->channels;
        for (int32_t column = 0; column < w->in_columns; column++) {
            memcpy(to, from, (size_t)rows->channels);
            from += w->channels;
            to += rows->channels;
        }
    }
    rows->kept = end;
}

/* The pixel at a row and a column of the input. */
static inline const int8_t *kernel_pixel(const KernelRows *rows, int32_t row, int32_t column) {
    const KernelWindow *w = rows->w;
    if (row < rows->kept) {
        return rows->ring + ((row % w->ring_rows) * w->in_columns + column) * rows->channels;
    }
    return rows->in + (row * w->in_columns + column) * w->channels;
}

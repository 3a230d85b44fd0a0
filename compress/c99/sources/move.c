static void kernel_move_row(const int8_t *in, int32_t read, int8_t *out, int32_t write, int32_t n, const int8_t *table) {
    if (table) {
        for (; n > 0; n--, in += read, out += write) {
            *out = table[*in + 128];
        }
    } else if (read == 1 && write == 1) {
        memcpy(out, in, (size_t)n);
    } else {
        for (; n > 0; n--, in += read, out += write) {
            *out = *in;
        }
    }
}

void kernel_move(const KernelMove *p, const int8_t *in, int8_t *out, const int8_t *table) {
    const int32_t last = KERNEL_LOOPS - 1;
    int32_t done[KERNEL_LOOPS] = {0}, loop;
    int32_t read = p->from, write = p->to;
    do {
        kernel_move_row(in + read, p->read_steps[last], out + write, p->write_steps[last], p->sizes[last], table);
        for (loop = last - 1; loop >= 0; loop--) {
            read += p->read_steps[loop];
            write += p->write_steps[loop];
            if (++done[loop] < p->sizes[loop]) {
                break;
            }
            read -= p->sizes[loop] * p->read_steps[loop];
            write -= p->sizes[loop] * p->write_steps[loop];
            done[loop] = 0;
        }
    } while (loop >= 0);
}

void kernel_fill(int8_t *out, int32_t n, int8_t value) {
    memset(out, value, (size_t)n);
}

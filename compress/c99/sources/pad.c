void kernel_pad(const KernelPad *p, const int8_t *in, int8_t *out) {
    const size_t row = (size_t)(p->columns * p->channels);
    const size_t left = (size_t)(p->left * p->channels), right = (size_t)(p->right * p->channels);
    const size_t whole = left + row + right;
    memset(out, p->zero, (size_t)p->top * whole);
    out += (size_t)p->top * whole;
    for (int32_t r = 0; r < p->rows; r++) {
        memset(out, p->zero, left);
        memcpy(out + left, in, row);
        memset(out + left + row, p->zero, right);
        in += row;
        out += whole;
    }
    memset(out, p->zero, (size_t)p->bottom * whole);
}

/* Requantization: one float32 multiply before it, round half to even, saturate. */

/* The nearest integer of a value between two limits, ties to even, plus the zero point. The limits are integers. They
 * stand between a product and the sum, so no compiler can make a fused multiply-add of the two, which rounds otherwise.
 * 1.5 * 2^23 plus a small number has that number, rounded, in its lowest bits. */
static inline int8_t kernel_rounded(float value, float low, float high, int32_t zero) {
    float clamped = value < low ? low : value;
    clamped = clamped > high ? high : clamped;
    const float shifted = clamped + 12582912.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (int8_t)(bits - 0x4B400000 + zero);
}

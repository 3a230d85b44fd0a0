/* SysTick, which counts down in 24 bits, and a stack filled with a pattern before a run. */

#define SYSTICK ((volatile uint32_t *)0xE000E010u)
#define STACK_PATTERN 0xA5u

extern unsigned char stack_lowest[];

static void counters_start(void) {
    SYSTICK[1] = 0xFFFFFFu;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5;
}

/* 0 where the counter has run through. */
static long counters_stop(void) {
    const uint32_t left = SYSTICK[2];
    return SYSTICK[0] >> 16 & 1 ? 0 : (long)(0xFFFFFFu - left);
}

static unsigned char *stack_now(void) {
    unsigned char *now;
    __asm__ volatile("mov %0, sp" : "=r"(now));
    return now;
}

static void stack_paint(void) {
    volatile unsigned char *end = stack_now();
    for (volatile unsigned char *p = stack_lowest; p < end; p++) {
        *p = STACK_PATTERN;
    }
}

static long stack_used(void) {
    const unsigned char *p = stack_lowest, *end = stack_now();
    while (p < end && *p == STACK_PATTERN) {
        p++;
    }
    return (long)(end - p);
}

/* The clock of the board: change it for yours. printf must write to the serial port, as most kits of vendors have it. */

#define _POSIX_C_SOURCE 199309L /* clock_gettime */

#include "board.h"

#if defined(__unix__) || defined(__APPLE__)

#include <time.h>

void board_start(void) {
}

uint32_t board_microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)now.tv_sec * 1000000u + (uint32_t)(now.tv_nsec / 1000);
}

#else

/* On a Cortex-M3 or larger, with the header of your chip:
 *
 *     void board_start(void) {
 *         CoreDebug->DEMCR |= CoreDebug_DEMCR_TRCENA_Msk;
 *         DWT->CTRL |= DWT_CTRL_CYCCNTENA_Msk;
 *     }
 *
 *     uint32_t board_microseconds(void) {
 *         static uint64_t cycles;
 *         cycles += DWT->CYCCNT - (uint32_t)cycles;
 *         return (uint32_t)(cycles / (SystemCoreClock / 1000000));
 *     }
 *
 * It must be called more often than the cycle counter wraps around, every 17 seconds at 250 MHz. */
#error "board_port.c: write board_start and board_microseconds for your board, and remove this line"

#endif

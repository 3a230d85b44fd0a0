/* What the program needs of the board. board_port.c has it for a PC, and says how for a microcontroller. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

/* Clocks, caches and the serial port, before anything is printed. */
void board_start(void);

/* Microseconds that pass, from any start; it may wrap around at 2^32. */
uint32_t board_microseconds(void);

/* Name of the processor, as it stands in the result. */
#ifndef BOARD_CPU
#define BOARD_CPU "board"
#endif

#endif

# make: builds for this machine, as an example. For a board, add the C files to its project, or: make CC=... CFLAGS=...

CFLAGS = -O3
STRICT = -std=c99 -ffp-contract=off -Wall -Wextra -Wconversion -pedantic
SOURCES = board_main.c board_port.c $(wildcard network_*.c)

kit: $(SOURCES) board.h networks.h
	$(CC) $(STRICT) $(CFLAGS) -o $@ $(SOURCES)

clean:
	rm -f kit

.PHONY: clean

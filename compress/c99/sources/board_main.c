/* Times each network and prints the times as JSON, which goes into the file result.json. */

#include <stdio.h>

#include "board.h"
#include "networks.h"

#define FEWEST_RUNS 3
#define LEAST_MICROSECONDS 200000u

int8_t kit_arena[KIT_ARENA_BYTES];
static int8_t image[KIT_INPUT_BYTES], outputs[KIT_OUTPUT_BYTES];

/* Nanoseconds of one run. */
static uint32_t timed(const KitNetwork *network) {
    uint32_t runs = 0, passed = 0;
    network->init();
    network->run(image, outputs); /* with cold caches */
    const uint32_t start = board_microseconds();
    while (runs < FEWEST_RUNS || passed < LEAST_MICROSECONDS) {
        network->run(image, outputs);
        passed = board_microseconds() - start;
        runs++;
    }
    return (uint32_t)((uint64_t)passed * 1000u / runs);
}

int main(void) {
    board_start();
    for (int32_t i = 0; i < KIT_INPUT_BYTES; i++) {
        image[i] = (int8_t)(i * 37 % 251 - 125);
    }
    printf("{\"schema\": 1, \"kit\": \"%s\", \"runtime\": \"c99\", \"reference_ms\": null,\n", KIT_DIGEST);
    printf(" \"conditions\": {\"cpu\": \"%s\", \"threads\": \"1\"},\n \"networks\": [\n", BOARD_CPU);
    for (int32_t i = 0; i < KIT_NETWORKS; i++) {
        const uint32_t nanoseconds = timed(&kit_networks[i]);
        printf("  {\"network\": \"%s\", \"precision\": \"int8\", \"latency_ms\": %lu.%06lu}%s\n", kit_networks[i].name,
               (unsigned long)(nanoseconds / 1000000u), (unsigned long)(nanoseconds % 1000000u),
               i + 1 < KIT_NETWORKS ? "," : "");
    }
    printf(" ]}\n");
    return 0;
}

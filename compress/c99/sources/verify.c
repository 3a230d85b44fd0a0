/* Runs each layer on stored inputs, then whole images; all files lie in the current folder. */

#include <stdio.h>

#include "model.c"
#include "verify.h"

#ifdef __arm__
#include "arm_counters.h"
#else
static void counters_start(void) {
}
static long counters_stop(void) {
    return -1;
}
static void stack_paint(void) {
}
static long stack_used(void) {
    return 0;
}
#endif

static int run_layers(FILE *in, FILE *out) {
    for (int i = 0; i < VERIFY_LAYER_RUNS; i++) {
        const int32_t *block = verify_blocks;
        for (int32_t layer = 0; layer < MODEL_LAYERS; layer++) {
            memset(arena, 0x55, sizeof arena);
            for (int32_t n = *block++; n > 0; n--, block += 2) {
                if (fread(arena + block[0], 1, (size_t)block[1], in) != (size_t)block[1]) {
                    return 1;
                }
            }
            counters_start();
            model_layer(layer);
            const long ticks = counters_stop();
            if (ticks >= 0 && i == 0) {
                printf("ticks %d %ld\n", (int)layer, ticks);
            }
            fwrite(arena + block[0], 1, (size_t)block[1], out);
            block += 2;
        }
    }
    return 0;
}

static int run_images(FILE *in, FILE *out) {
    static int8_t image[MODEL_INPUT_BYTES], result[MODEL_OUTPUT_BYTES];
    for (int i = 0; i < VERIFY_IMAGES; i++) {
        if (fread(image, 1, sizeof image, in) != sizeof image) {
            return 1;
        }
        stack_paint();
        model_run(image, result);
        const long used = stack_used();
        if (used > 0 && i == 0) {
            printf("stack %ld\n", used);
        }
        fwrite(result, 1, sizeof result, out);
    }
    return 0;
}

int main(void) {
    FILE *in = fopen("inputs.bin", "rb"), *out = fopen("outputs.bin", "wb");
    if (!in || !out) {
        return 2;
    }
    model_init();
    const int failed = run_layers(in, out) || run_images(in, out);
    return fclose(in) | fclose(out) | failed;
}

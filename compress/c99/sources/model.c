#include "model.h"

#include <string.h>

#include "kernels.h"

@CONSTANTS@
/* Every activation, the input and the output among them. */
static int8_t arena[MODEL_ARENA_BYTES];

static void model_layer(int32_t layer) {
    switch (layer) {
@CASES@
        default:
            break;
    }
}

void model_init(void) {
    memset(arena, 0, sizeof arena);
}

void model_run(const int8_t *in, int8_t *out) {
    memcpy(arena + @INPUT@, in, MODEL_INPUT_BYTES);
    for (int32_t layer = 0; layer < MODEL_LAYERS; layer++) {
        model_layer(layer);
    }
    memcpy(out, arena + @OUTPUT@, MODEL_OUTPUT_BYTES);
}

int32_t model_argmax(const int8_t *out) {
    int32_t best = 0;
    for (int32_t i = 1; i < MODEL_OUTPUT_BYTES; i++) {
        best = out[i] > out[best] ? i : best;
    }
    return best;
}

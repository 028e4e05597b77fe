/* Time an ONNX model on this machine's CPU and print one JSON object: run_onnx.py for devices without Python.
 *
 *     cc -O2 -o run_onnx run_onnx.c -ldl
 *     LD_LIBRARY_PATH=. ORT_DISABLE_TELEMETRY=1 ./run_onnx model.onnx --input=input.bin --threads=2
 *
 * It needs libonnxruntime.so, which it opens when it runs, so that one program serves many versions. The input is a
 * file: float32 [batch, channels, height, width] in the machine's byte order. On failure the last line of stderr says
 * what was wrong, and the exit status is 1.
 *
 *     ./run_onnx model.onnx --stream --batch=8 < inputs.bin > outputs.bin
 *
 * times nothing: it reads one such input after the other from stdin, and before it reads the next it writes to stdout
 * how many values the first output has, in 64 bits, and these, float32.
 */

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

enum { API_VERSION = 12, IMAGE_DIMENSIONS = 4, MAX_DIMENSIONS = 16, MAX_OUTPUT_VALUES = 4096 };

/* Values of ONNX Runtime's C interface. */
enum { LOG_ERRORS = 3, SEQUENTIAL = 0, ALL_OPTIMISATIONS = 99, FLOAT32 = 1, ARENA_ALLOCATOR = 1, DEFAULT_MEMORY = 0 };

/* The part of ONNX Runtime's table of functions that is used here. New versions only add to its end, so places stay.
 * All objects are opaque. What returns `void *` returns a status: NULL if all went well. */
struct Api {
    void *places_0_1[2];
    const char *(*GetErrorMessage)(const void *status);
    void *(*CreateEnv)(int log_level, const char *name, void **env);
    void *places_4_5[2];
    void *(*DisableTelemetryEvents)(const void *env);
    void *(*CreateSession)(const void *env, const char *path, const void *options, void **session);
    void *place_8;
    void *(*Run)(void *session, const void *run_options, const char *const *input_names, const void *const *inputs,
                 size_t input_count, const char *const *output_names, size_t output_count, void **outputs);
    void *(*CreateSessionOptions)(void **options);
    void *places_11_12[2];
    void *(*SetSessionExecutionMode)(void *options, int mode);
    void *places_14_22[9];
    void *(*SetSessionGraphOptimizationLevel)(void *options, int level);
    void *(*SetIntraOpNumThreads)(void *options, int threads);
    void *(*SetInterOpNumThreads)(void *options, int threads);
    void *places_26_29[4];
    void *(*SessionGetInputCount)(const void *session, size_t *count);
    void *(*SessionGetOutputCount)(const void *session, size_t *count);
    void *place_32;
    void *(*SessionGetInputTypeInfo)(const void *session, size_t index, void **type);
    void *places_34_35[2];
    void *(*SessionGetInputName)(const void *session, size_t index, void *allocator, char **name);
    void *(*SessionGetOutputName)(const void *session, size_t index, void *allocator, char **name);
    void *places_38_48[11];
    void *(*CreateTensorWithDataAsOrtValue)(const void *memory, void *data, size_t bytes, const int64_t *shape,
                                            size_t dimensions, int type, void **value);
    void *place_50;
    void *(*GetTensorMutableData)(void *value, void **data);
    void *places_52_54[3];
    void *(*CastTypeInfoToTensorInfo)(const void *type, const void **tensor);
    void *places_56_59[4];
    void *(*GetTensorElementType)(const void *tensor, int *type);
    void *(*GetDimensionsCount)(const void *tensor, size_t *count);
    void *(*GetDimensions)(const void *tensor, int64_t *shape, size_t count);
    void *place_63;
    void *(*GetTensorShapeElementCount)(const void *tensor, size_t *count);
    void *(*GetTensorTypeAndShape)(const void *value, void **tensor);
    void *places_66_68[3];
    void *(*CreateCpuMemoryInfo)(int allocator, int memory, void **info);
    void *places_70_77[8];
    void *(*GetAllocatorWithDefaultOptions)(void **allocator);
    void *places_79_95[17];
    void (*ReleaseValue)(void *value);
    void *places_97_98[2];
    void (*ReleaseTensorTypeAndShapeInfo)(void *tensor);
};

_Static_assert(offsetof(struct Api, Run) == 9 * sizeof(void *), "places are counted wrongly");
_Static_assert(offsetof(struct Api, GetTensorMutableData) == 51 * sizeof(void *), "places are counted wrongly");
_Static_assert(offsetof(struct Api, ReleaseTensorTypeAndShapeInfo) == 99 * sizeof(void *),
               "places are counted wrongly");

struct ApiBase {
    const struct Api *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
};

struct Options {
    const char *model, *input; /* no input: read from stdin, one after the other */
    long threads, batch, warmup, min_samples;
    double min_seconds, max_seconds;
};

struct Model {
    void *session, *input;
    const char *input_name, **output_names;
    int64_t input_shape[IMAGE_DIMENSIONS];
    void *input_data;
    size_t input_bytes, output_count;
    void **outputs; /* of the last run */
};

struct Output {
    const float *values;
    size_t count, dimensions;
    int64_t shape[MAX_DIMENSIONS];
};

struct Samples {
    double *ms;
    size_t count, space;
};

static const struct Api *api;

static void fail(const char *format, ...) {
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    for (char *character = message; *character != '\0'; character++)
        if (*character == '\n') *character = ' ';
    fprintf(stderr, "%s\n", message);
    exit(1);
}

static void check(const void *status) {
    if (status != NULL) fail("%s", api->GetErrorMessage(status));
}

static void *allocate(size_t count, size_t bytes) {
    void *memory = calloc(count, bytes);
    if (memory == NULL) fail("out of memory");
    return memory;
}

static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* The most memory this process has had resident, in MiB; negative where the system does not tell. */
static double peak_memory_mib(void) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    double kib = -1024;
    if (status == NULL) return -1;
    while (fgets(line, sizeof line, status) != NULL && sscanf(line, "VmHWM: %lf", &kib) != 1) continue;
    fclose(status);
    return kib / 1024;
}

/* Return what follows `name=` in an argument, NULL if it is another one. */
static const char *value_of(const char *argument, const char *name) {
    size_t length = strlen(name);
    return strncmp(argument, name, length) == 0 && argument[length] == '=' ? argument + length + 1 : NULL;
}

static struct Options parse_options(int count, char **arguments) {
    struct Options options = {
        .threads = 1, .batch = 1, .warmup = 10, .min_samples = 100, .min_seconds = 1, .max_seconds = 10};
    int stream = 0;
    for (int index = 1; index < count; index++) {
        const char *argument = arguments[index], *value;
        if ((value = value_of(argument, "--input"))) options.input = value;
        else if ((value = value_of(argument, "--threads"))) options.threads = strtol(value, NULL, 10);
        else if ((value = value_of(argument, "--batch"))) options.batch = strtol(value, NULL, 10);
        else if ((value = value_of(argument, "--warmup"))) options.warmup = strtol(value, NULL, 10);
        else if ((value = value_of(argument, "--min-samples"))) options.min_samples = strtol(value, NULL, 10);
        else if ((value = value_of(argument, "--min-seconds"))) options.min_seconds = strtod(value, NULL);
        else if ((value = value_of(argument, "--max-seconds"))) options.max_seconds = strtod(value, NULL);
        else if (strcmp(argument, "--stream") == 0) stream = 1;
        else if (argument[0] != '-' && options.model == NULL) options.model = argument;
        else fail("unknown argument %s", argument);
    }
    if (options.model == NULL || (options.input == NULL) != stream)
        fail("usage: run_onnx MODEL --input=FILE|--stream [--threads=N] ...");
    return options;
}

static const struct ApiBase *open_runtime(void) {
    void *library = dlopen("libonnxruntime.so", RTLD_NOW);
    const struct ApiBase *(*get_base)(void);
    if (library == NULL) fail("%s", dlerror());
    *(void **)&get_base = dlsym(library, "OrtGetApiBase");
    if (get_base == NULL) fail("%s", dlerror());
    api = get_base()->GetApi(API_VERSION);
    if (api == NULL) fail("ONNX Runtime %s is too old", get_base()->GetVersionString());
    return get_base();
}

/* Load the model as an app would: all graph optimisations, operators one after another. */
static void *open_session(const struct Options *options) {
    void *env, *session_options, *session;
    check(api->CreateEnv(LOG_ERRORS, "run_onnx", &env));
    check(api->DisableTelemetryEvents(env));
    check(api->CreateSessionOptions(&session_options));
    check(api->SetIntraOpNumThreads(session_options, (int)options->threads));
    check(api->SetInterOpNumThreads(session_options, 1));
    check(api->SetSessionExecutionMode(session_options, SEQUENTIAL));
    check(api->SetSessionGraphOptimizationLevel(session_options, ALL_OPTIMISATIONS));
    check(api->CreateSession(env, options->model, session_options, &session));
    return session;
}

/* Read the shape of the model's one input, having checked that images fit it. */
static void read_input_shape(const void *session, long batch, int64_t *shape) {
    size_t inputs, dimensions = 0;
    void *type;
    const void *tensor;
    int element = 0;
    check(api->SessionGetInputCount(session, &inputs));
    if (inputs != 1) fail("the model has %zu inputs, not one", inputs);
    check(api->SessionGetInputTypeInfo(session, 0, &type));
    check(api->CastTypeInfoToTensorInfo(type, &tensor));
    if (tensor != NULL) {
        check(api->GetTensorElementType(tensor, &element));
        check(api->GetDimensionsCount(tensor, &dimensions));
    }
    if (element == FLOAT32 && dimensions == IMAGE_DIMENSIONS) {
        check(api->GetDimensions(tensor, shape, dimensions));
        shape[0] = batch;
        if (shape[1] > 0 && shape[2] > 0 && shape[3] > 0) return;
    }
    fail("the input is not float [batch, channels, height, width]");
}

static void read_input(const struct Model *model, const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail("%s: %s", path, strerror(errno));
    if (fread(model->input_data, 1, model->input_bytes, file) != model->input_bytes || fgetc(file) != EOF)
        fail("%s does not hold %zu bytes", path, model->input_bytes);
    fclose(file);
}

static struct Model prepare(void *session, const struct Options *options) {
    struct Model model = {.session = session};
    void *allocator, *memory;
    read_input_shape(session, options->batch, model.input_shape);
    model.input_bytes = sizeof(float);
    for (int axis = 0; axis < IMAGE_DIMENSIONS; axis++) model.input_bytes *= (size_t)model.input_shape[axis];
    model.input_data = allocate(model.input_bytes, 1);
    check(api->CreateCpuMemoryInfo(ARENA_ALLOCATOR, DEFAULT_MEMORY, &memory));
    check(api->CreateTensorWithDataAsOrtValue(memory, model.input_data, model.input_bytes, model.input_shape,
                                              IMAGE_DIMENSIONS, FLOAT32, &model.input));
    if (options->input != NULL) read_input(&model, options->input);
    check(api->GetAllocatorWithDefaultOptions(&allocator));
    check(api->SessionGetInputName(session, 0, allocator, (char **)&model.input_name));
    check(api->SessionGetOutputCount(session, &model.output_count));
    model.outputs = allocate(model.output_count, sizeof *model.outputs);
    model.output_names = allocate(model.output_count, sizeof *model.output_names);
    for (size_t index = 0; index < model.output_count; index++)
        check(api->SessionGetOutputName(session, index, allocator, (char **)&model.output_names[index]));
    return model;
}

/* Run the model once and return how many milliseconds it took. */
static double run(struct Model *model) {
    for (size_t index = 0; index < model->output_count; index++) {
        if (model->outputs[index] != NULL) api->ReleaseValue(model->outputs[index]);
        model->outputs[index] = NULL; /* ask for a new one */
    }
    const void *inputs[] = {model->input};
    double start = now_ms();
    check(api->Run(model->session, NULL, &model->input_name, inputs, 1, model->output_names, model->output_count,
                   model->outputs));
    return now_ms() - start;
}

/* The loop of run_onnx.py: until there are enough samples over enough time, or the time is over; at least one. */
static struct Samples measure(struct Model *model, const struct Options *options) {
    struct Samples samples = {0};
    double start = now_ms(), seconds;
    for (long index = 0; index < options->warmup && now_ms() - start < options->max_seconds * 1e3; index++) run(model);
    start = now_ms();
    do {
        if (samples.count == samples.space) {
            samples.space = 2 * samples.space + 128;
            samples.ms = realloc(samples.ms, samples.space * sizeof *samples.ms);
            if (samples.ms == NULL) fail("out of memory");
        }
        samples.ms[samples.count++] = run(model);
        seconds = (now_ms() - start) / 1e3;
    } while (seconds < options->max_seconds &&
             ((long)samples.count < options->min_samples || seconds < options->min_seconds));
    return samples;
}

static void print_number_or_null(const char *name, double number) {
    if (number < 0) printf("\"%s\": null, ", name);
    else printf("\"%s\": %.6f, ", name, number);
}

static void print_shape(const char *name, const int64_t *shape, size_t dimensions) {
    printf("\"%s\": [", name);
    for (size_t axis = 0; axis < dimensions; axis++) printf("%s%" PRId64, axis ? ", " : "", shape[axis]);
    printf("], ");
}

/* Return the first output of the last run; its values are good until the next. */
static struct Output first_output(const struct Model *model) {
    struct Output output;
    void *tensor;
    int element;
    check(api->GetTensorTypeAndShape(model->outputs[0], &tensor));
    check(api->GetTensorElementType(tensor, &element));
    check(api->GetDimensionsCount(tensor, &output.dimensions));
    if (element != FLOAT32 || output.dimensions > MAX_DIMENSIONS) fail("the model's output is not float");
    check(api->GetDimensions(tensor, output.shape, output.dimensions));
    check(api->GetTensorShapeElementCount(tensor, &output.count));
    check(api->GetTensorMutableData(model->outputs[0], (void **)&output.values));
    api->ReleaseTensorTypeAndShapeInfo(tensor);
    return output;
}

/* Print an output, for comparing with another runtime on the same input. Ends the object. */
static void print_output(const struct Output *output) {
    for (size_t index = 0; index < output->count; index++)
        if (!isfinite(output->values[index])) fail("the model's output is not finite");
    print_shape("output_shape", output->shape, output->dimensions);
    printf("\"output\": [");
    for (size_t index = 0; index < output->count && index < MAX_OUTPUT_VALUES; index++)
        printf("%s%.9g", index ? ", " : "", output->values[index]);
    printf("]}\n");
}

static void stream(struct Model *model) {
    size_t bytes;
    while ((bytes = fread(model->input_data, 1, model->input_bytes, stdin)) == model->input_bytes) {
        run(model);
        struct Output output = first_output(model);
        uint64_t count = output.count;
        fwrite(&count, sizeof count, 1, stdout);
        fwrite(output.values, sizeof(float), output.count, stdout);
        if (fflush(stdout) != 0 || ferror(stdout)) fail("stdout: %s", strerror(errno));
    }
    if (bytes > 0) fail("the last input has %zu bytes, not %zu", bytes, model->input_bytes);
}

int main(int count, char **arguments) {
    struct Options options = parse_options(count, arguments);
    const struct ApiBase *runtime = open_runtime();
    struct utsname system;
    uname(&system);

    double memory_before_load = peak_memory_mib(), start = now_ms();
    void *session = open_session(&options);
    double load_ms = now_ms() - start;
    struct Model model = prepare(session, &options);
    if (options.input == NULL) {
        stream(&model);
        return 0;
    }
    double first_run_ms = run(&model);
    struct Samples samples = measure(&model, &options);
    double peak_memory = peak_memory_mib();

    printf("{\"runtime\": \"onnxruntime\", \"runtime_version\": \"%s\", ", runtime->GetVersionString());
    printf("\"provider\": \"CPUExecutionProvider\", \"machine\": \"%s\", \"python\": null, ", system.machine);
    printf("\"threads\": %ld, \"batch\": %ld, ", options.threads, options.batch);
    print_shape("input_shape", model.input_shape, IMAGE_DIMENSIONS);
    printf("\"load_ms\": %.6f, \"first_run_ms\": %.6f, \"samples_ms\": [", load_ms, first_run_ms);
    for (size_t index = 0; index < samples.count; index++) printf("%s%.6f", index ? ", " : "", samples.ms[index]);
    printf("], ");
    print_number_or_null("memory_before_load_mib", memory_before_load);
    print_number_or_null("peak_memory_mib", peak_memory);
    struct Output output = first_output(&model);
    print_output(&output);
    return 0;
}

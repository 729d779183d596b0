// libcuda.so.1 for tests: the driver's calls that a runner makes, on memory of the host. It is compiled behind
// emulated.h and the kernels of one program, and runs these, whatever module it is given.

#include <dlfcn.h>
#include <stdio.h>

struct Launched {
  void* function;
  unsigned grid, block, shared;
  int count;
  void* arguments[7];
};
struct Graph {
  int count;
  Launched launches[64];
};

static Graph* capturing;
static void* context;
static int allocated, event_time;

static int perform(const Launched& launch) {
  const char* failure = emulate(launch.function, launch.count, const_cast<void**>(launch.arguments),
                                static_cast<int>(launch.grid), static_cast<int>(launch.block),
                                static_cast<int>(launch.shared), 0);
  if (failure) fprintf(stderr, "%s\n", failure);
  return failure ? 719 : 0;  // CUDA_ERROR_LAUNCH_FAILED
}

extern "C" {

int fake_allocated() { return allocated; }

int cuInit(unsigned) { return getenv("FAKE_CUDA_NO_DEVICE") ? 100 : 0; }
int cuGetErrorName(int error, const char** text) {
  *text = error == 500 ? "CUDA_ERROR_NOT_FOUND" : error == 201 ? "CUDA_ERROR_INVALID_CONTEXT" : nullptr;
  return 0;
}
int cuDriverGetVersion(int* version) { return *version = 12080, 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGet(int* device, int) { return *device = 0, 0; }
int cuDeviceGetName(char* name, int size, int) { return snprintf(name, static_cast<size_t>(size), "emulated"), 0; }
int cuDeviceGetAttribute(int* value, int which, int) {
  const char* capability = getenv("FAKE_CUDA_CAPABILITY");
  const int both = capability ? atoi(capability) : 90;
  *value = which == 75 ? both / 10 : which == 76 ? both % 10 : 0;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** made, int) { return *made = &context, 0; }
int cuCtxSetCurrent(void* wanted) { return context = wanted, 0; }

int cuModuleLoadData(void** module, const void* image) {
  *module = const_cast<void*>(image);
  return memcmp(image, "\x7f" "ELF", 4) && !strstr(static_cast<const char*>(image), ".target") ? 200 : 0;
}
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  Dl_info self;
  dladdr(reinterpret_cast<void*>(cuInit), &self);
  *function = dlsym(dlopen(self.dli_fname, RTLD_NOW), name);
  return *function ? 0 : 500;
}

int cuFuncSetAttribute(void*, int which, int) { return which == 8 ? 0 : 1; }

int cuMemAlloc_v2(uint64_t* pointer, size_t size) {
  if (!context) return 201;
  ++allocated;
  *pointer = reinterpret_cast<uint64_t>(aligned_alloc(256, (size + 255) / 256 * 256));
  memset(reinterpret_cast<void*>(*pointer), 0xA5, size);
  return 0;
}
int cuMemFree_v2(uint64_t pointer) { return --allocated, free(reinterpret_cast<void*>(pointer)), 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t size, void*) {
  return memcpy(reinterpret_cast<void*>(to), from, size), 0;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t size, void*) {
  return memcpy(to, reinterpret_cast<void*>(from), size), 0;
}

int cuStreamCreate(void** stream, unsigned) { return *stream = &event_time, 0; }
int cuStreamSynchronize(void*) { return 0; }
int cuStreamBeginCapture_v2(void*, int) { return capturing = static_cast<Graph*>(calloc(1, sizeof(Graph))), 0; }
int cuStreamEndCapture(void*, void** graph) { return *graph = capturing, capturing = nullptr, 0; }
int cuGraphInstantiateWithFlags(void** executable, void* graph, uint64_t) {
  *executable = memcpy(malloc(sizeof(Graph)), graph, sizeof(Graph));
  return 0;
}
int cuGraphExecDestroy(void* graph) { return free(graph), 0; }
int cuGraphDestroy(void* graph) { return free(graph), 0; }
int cuGraphLaunch(void* graph, void*) {
  const Graph* const all = static_cast<Graph*>(graph);
  for (int i = 0; i < all->count; ++i)
    if (const int error = perform(all->launches[i])) return error;
  return ++event_time, 0;
}
int cuLaunchKernel(void* function, unsigned grid, unsigned, unsigned, unsigned block, unsigned, unsigned, unsigned shared,
                   void*, void**, void** extra) {
  void** const arguments = static_cast<void**>(extra[1]);
  const size_t count = *static_cast<size_t*>(extra[3]) / sizeof(void*);
  Launched launch = {function, grid, block, shared, static_cast<int>(count), {}};
  memcpy(launch.arguments, arguments, count * sizeof(void*));
  if (!capturing) return ++event_time, perform(launch);
  capturing->launches[capturing->count++] = launch;
  return 0;
}

int cuEventCreate(void** event, unsigned) { return *event = calloc(1, sizeof(int)), 0; }
int cuEventRecord(void* event, void*) { return *static_cast<int*>(event) = event_time, 0; }
int cuEventElapsedTime(float* time, void* first, void* last) {
  return *time = static_cast<float>(*static_cast<int*>(last) - *static_cast<int*>(first)), 0;
}
int cuEventDestroy_v2(void* event) { return free(event), 0; }

}  // extern "C"

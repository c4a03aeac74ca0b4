package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	busv1alpha1 "github.com/metip/metip/api/v1alpha1"
)

// OperatorNamespace is where config/default installs the operator.
const OperatorNamespace = "metip-system"

// Cluster is a cluster to work on. It is safe for concurrent use.
type Cluster struct {
	// Root of the repository.
	Root string
	// Kubeconfig file and kubectl binary.
	Kubeconfig, Kubectl string
	// Local: the node is this machine, so that Services answer on their cluster IPs and the pods' processes can be seen.
	Local bool
	// Image of MetIP, and of the demo's case API.
	Image, DemoImage string

	Client    client.Client
	Clientset kubernetes.Interface
	REST      *rest.Config
}

// Options say which cluster. The zero value is the local one.
type Options struct {
	Root, Kubeconfig, Kubectl, Image, DemoImage string
}

// OptionsFromEnvironment are what hack/make passes: METIP_ROOT, KUBECONFIG, KUBECTL, IMG and DEMO_IMG.
func OptionsFromEnvironment() Options {
	return Options{
		Root: os.Getenv("METIP_ROOT"), Kubeconfig: os.Getenv("KUBECONFIG"), Kubectl: os.Getenv("KUBECTL"),
		Image: os.Getenv("IMG"), DemoImage: os.Getenv("DEMO_IMG"),
	}
}

// Open a cluster and check that it answers.
func Open(ctx context.Context, o Options) (*Cluster, error) {
	root, err := findRoot(o.Root)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Root: root, Kubeconfig: o.Kubeconfig, Kubectl: o.Kubectl,
		Image: orElse(o.Image, defaultImage), DemoImage: orElse(o.DemoImage, defaultDemoImage),
	}
	local := filepath.Join(root, "out", "cluster", "admin.conf")
	c.Kubeconfig = orElse(c.Kubeconfig, local)
	c.Local = c.Kubeconfig == local
	if c.Kubectl == "" {
		c.Kubectl = filepath.Join(root, "out", "bin", "kubectl")
	}
	if c.REST, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w (is the cluster up? `make cluster-up`)", c.Kubeconfig, err)
	}
	c.REST.QPS, c.REST.Burst = 200, 400
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, busv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	if c.Clientset, err = kubernetes.NewForConfig(c.REST); err != nil {
		return nil, err
	}
	if _, err = c.Clientset.Discovery().ServerVersion(); err != nil {
		return nil, fmt.Errorf("the cluster of %s does not answer: %w (`make cluster-up` starts the local one)", c.Kubeconfig, err)
	}
	c.Client, err = client.New(c.REST, client.Options{Scheme: scheme})
	return c, err
}

const (
	defaultImage     = "localhost/metip:dev"
	defaultDemoImage = "localhost/metip-demo:dev"
)

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// findRoot looks upwards for go.mod where root is not given.
func findRoot(root string) (string, error) {
	if root != "" {
		return filepath.Abs(root)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "PROJECT")); err == nil {
			return dir, nil
		}
		if _, err := os.Stat(filepath.Join(dir, "config", "crd")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("not inside the repository: set METIP_ROOT")
		}
		dir = filepath.Dir(dir)
	}
}

// Run kubectl and return what it prints.
func (c *Cluster) Run(ctx context.Context, args ...string) (string, error) {
	return c.RunInput(ctx, "", args...)
}

// RunInput runs kubectl with standard input.
func (c *Cluster) RunInput(ctx context.Context, input string, args ...string) (string, error) {
	var out, failure bytes.Buffer
	cmd := exec.CommandContext(ctx, c.Kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &failure
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(failure.String()))
	}
	return out.String(), nil
}

// Apply a manifest of any number of documents, server-side.
func (c *Cluster) Apply(ctx context.Context, manifest string) error {
	_, err := c.RunInput(ctx, manifest, "apply", "--server-side", "--force-conflicts", "--field-manager=metip-test", "-f", "-")
	return err
}

// HostAddress is where pods reach this machine: the node's address, on the local cluster.
func (c *Cluster) HostAddress(ctx context.Context) (string, error) {
	nodes, err := c.Clientset.CoreV1().Nodes().List(ctx, listAll)
	if err != nil {
		return "", err
	}
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				return address.Address, nil
			}
		}
	}
	return "", fmt.Errorf("no node has an internal address")
}

// Exists tells whether an object is there.
func (c *Cluster) Exists(ctx context.Context, object client.Object) (bool, error) {
	err := c.Client.Get(ctx, client.ObjectKeyFromObject(object), object)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

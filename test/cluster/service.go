package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

var listAll metav1.ListOptions

// Dialer connects to one port of a Service, from this machine. On the local cluster that is the Service's cluster IP; elsewhere a port
// is forwarded to one of its ready pods, anew whenever that pod is gone.
type Dialer struct {
	cluster   *Cluster
	namespace string
	service   string
	port      int32

	lock    chan struct{}
	forward *forward
}

type forward struct {
	address string
	stop    chan struct{}
	done    chan struct{}
}

// Dialer of a Service's port.
func (c *Cluster) Dialer(namespace, service string, port int32) *Dialer {
	return &Dialer{cluster: c, namespace: namespace, service: service, port: port, lock: make(chan struct{}, 1)}
}

// Dial the Service. The arguments after the context are ignored: they are there for http.Transport.
func (d *Dialer) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	address, err := d.Address(ctx)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
}

// Address that reaches the Service from this machine.
func (d *Dialer) Address(ctx context.Context) (string, error) {
	service, err := d.cluster.Clientset.CoreV1().Services(d.namespace).Get(ctx, d.service, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if d.cluster.Local {
		host := service.Spec.ClusterIP
		if host == corev1.ClusterIPNone || host == "" {
			return "", fmt.Errorf("service %s/%s has no cluster IP", d.namespace, d.service)
		}
		return net.JoinHostPort(host, strconv.Itoa(int(d.port))), nil
	}
	d.lock <- struct{}{}
	defer func() { <-d.lock }()
	if d.forward != nil {
		select {
		case <-d.forward.done:
		default:
			return d.forward.address, nil
		}
	}
	if d.forward, err = d.cluster.forward(ctx, service, d.port); err != nil {
		return "", err
	}
	return d.forward.address, nil
}

// Close stops forwarding.
func (d *Dialer) Close() {
	if d.forward != nil {
		close(d.forward.stop)
		d.forward = nil
	}
}

// HTTPClient of the Service: requests to any host go to it.
func (d *Dialer) HTTPClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext: d.Dial, MaxIdleConns: 64, MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second,
		},
	}
}

func (c *Cluster) forward(ctx context.Context, service *corev1.Service, port int32) (*forward, error) {
	pods, err := c.Clientset.CoreV1().Pods(service.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(service.Spec.Selector).String()})
	if err != nil {
		return nil, err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		target, ok := targetPort(service, pod, port)
		if ok && podReady(pod) {
			return c.forwardPod(ctx, pod, target)
		}
	}
	return nil, fmt.Errorf("service %s/%s has no ready pod", service.Namespace, service.Name)
}

func (c *Cluster) forwardPod(ctx context.Context, pod *corev1.Pod, port int32) (*forward, error) {
	roundTripper, upgrader, err := spdy.RoundTripperFor(c.REST)
	if err != nil {
		return nil, err
	}
	url := c.Clientset.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: roundTripper}, http.MethodPost, url)
	f := &forward{stop: make(chan struct{}), done: make(chan struct{})}
	ready, failed := make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, f.stop, ready, io.Discard, io.Discard)
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(f.done)
		failed <- forwarder.ForwardPorts()
	}()
	select {
	case <-ready:
	case err := <-failed:
		return nil, errors.Join(fmt.Errorf("port-forward to %s/%s", pod.Namespace, pod.Name), err)
	case <-ctx.Done():
		close(f.stop)
		return nil, ctx.Err()
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return nil, err
	}
	f.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[0].Local)))
	return f, nil
}

func podReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

func targetPort(service *corev1.Service, pod *corev1.Pod, port int32) (int32, bool) {
	for _, p := range service.Spec.Ports {
		if p.Port != port {
			continue
		}
		if p.TargetPort.IntVal != 0 {
			return p.TargetPort.IntVal, true
		}
		for _, container := range pod.Spec.Containers {
			for _, named := range container.Ports {
				if named.Name == p.TargetPort.StrVal {
					return named.ContainerPort, true
				}
			}
		}
		return port, p.TargetPort.StrVal == ""
	}
	return 0, false
}
